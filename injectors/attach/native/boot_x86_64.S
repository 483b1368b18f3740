/* The two ends of the bootstrap that C cannot say. Same section, same rules as boot.c. */

  .section gputap_boot, "ax", @progbits

/* Start routine of the new thread. Its last act is to jump into munmap, so nothing of us stays mapped:
   munmap returns straight to libc, and its 0 is the thread's result. */
  .globl gputap_boot_entry
  .hidden gputap_boot_entry
  .type gputap_boot_entry, @function
gputap_boot_entry:
  push %rbx
  mov %rdi, %rbx
  call gputap_boot_run
  mov %eax, %ecx
  mov 0(%rbx), %rdi
  mov 8(%rbx), %rsi
  mov 16(%rbx), %rdx
  pop %rbx
  xor %eax, %eax
  test %ecx, %ecx
  jz 1f
  jmp *%rdx
1:
  ret
  .size gputap_boot_entry, .-gputap_boot_entry

/* Where the stopped thread's pthread_create returns to: it raises SIGURG, which the injector sees as a
   stop and swallows. SIGURG and not a breakpoint, because it is ignored by default: if the injector
   has died meanwhile, the thread goes on to rt_sigreturn and is what it was before. */
  .globl gputap_boot_return
  .hidden gputap_boot_return
  .type gputap_boot_return, @function
gputap_boot_return:
  mov %eax, %r12d /* pthread_create's result, read by the injector */
  mov $39, %eax   /* getpid */
  syscall
  mov %eax, %ebx
  mov $186, %eax /* gettid */
  syscall
  mov %ebx, %edi
  mov %eax, %esi
  mov $23, %edx   /* SIGURG */
  mov $234, %eax  /* tgkill */
  syscall
  mov $15, %eax /* rt_sigreturn; rsp is at the frame that arch_rescue_frame made */
  syscall
  ud2
  .size gputap_boot_return, .-gputap_boot_return

  .section .note.GNU-stack, "", @progbits
