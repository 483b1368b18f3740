/* The end of the bootstrap that C cannot say. Same section, same rules as boot.c. */

  .section gputap_boot, "ax", @progbits

/* Its last act is to jump into munmap, so nothing of us stays mapped: munmap returns to where this
   function was to return to. */
  .globl gputap_boot_entry
  .hidden gputap_boot_entry
  .type gputap_boot_entry, @function
gputap_boot_entry:
  push %rbx
  mov %rdi, %rbx
  call gputap_boot_run
  mov 0(%rbx), %rdi
  mov 8(%rbx), %rsi
  mov 16(%rbx), %rax
  pop %rbx
  jmp *%rax
  .size gputap_boot_entry, .-gputap_boot_entry

  .section .note.GNU-stack, "", @progbits
