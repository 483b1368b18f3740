/* Operators: the five of NCCL, and sums with a factor that callers make. */
#include <string.h>

#include "comm.h"
#include "error.h"

nccl_result op_find(const struct nccl_comm *comm, nccl_op op, nccl_type type,
                    struct reduction *reduction) {
  if (!reduce_is_possible(type)) {
    return fail(NCCL_INVALID_ARGUMENT, "type %d cannot be reduced", type);
  }
  if ((unsigned)op < NCCL_OP_COUNT) {
    *reduction = (struct reduction){.type = type, .op = op};
    return NCCL_SUCCESS;
  }
  const unsigned index = (unsigned)op - NCCL_OP_COUNT;
  if (index >= MOST_OPS || !comm->op_used[index]) {
    return fail(NCCL_INVALID_ARGUMENT, "operator %d is unknown to this communicator", op);
  }
  if (comm->ops[index].type != type) {
    return fail(NCCL_INVALID_ARGUMENT, "operator %d was made for type %d, not %d", op,
                comm->ops[index].type, type);
  }
  *reduction = comm->ops[index];
  return NCCL_SUCCESS;
}

nccl_result ncclRedOpCreatePreMulSum(nccl_op *op, void *scalar, nccl_type type,
                                     nccl_residence residence, nccl_comm comm) {
  const nccl_result result = comm_check(comm, "ncclRedOpCreatePreMulSum");
  if (result != NCCL_SUCCESS) {
    return result;
  }
  int index = 0;
  while (index < MOST_OPS && comm->op_used[index]) {
    index++;
  }
  if (!op || !scalar || !reduce_is_possible(type) || index == MOST_OPS) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclRedOpCreatePreMulSum: type %d, %d made", type, index);
  }
  struct reduction *made = &comm->ops[index];
  *made = (struct reduction){.type = type, .op = NCCL_SUM, .scales = true};
  if (residence == NCCL_SCALAR_HOST) {
    memcpy(&made->scalar, scalar, reduce_type_size(type));
  } else {
    made->scalar_there = scalar;
  }
  comm->op_used[index] = true;
  *op = (nccl_op)(NCCL_OP_COUNT + index);
  return NCCL_SUCCESS;
}

nccl_result ncclRedOpDestroy(nccl_op op, nccl_comm comm) {
  const nccl_result result = comm_check(comm, "ncclRedOpDestroy");
  if (result != NCCL_SUCCESS) {
    return result;
  }
  const unsigned index = (unsigned)op - NCCL_OP_COUNT;
  if (index >= MOST_OPS || !comm->op_used[index]) {
    return fail(NCCL_INVALID_ARGUMENT, "ncclRedOpDestroy: no operator %d", op);
  }
  comm->op_used[index] = false;
  return NCCL_SUCCESS;
}
