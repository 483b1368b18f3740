// The names of PyTorch's CUDA kernels, as its 2.x builds show them in a trace.
#include <unordered_map>

#include "mangle.h"

namespace simcuda {

namespace {

string softmax(const OpFacts &facts, bool log, bool backward) {
  string t = facts.type.mangled;
  if (facts.row <= 1024) {
    int exponent = 0;
    while ((int64_t(1) << exponent) < facts.row) exponent++;
    string types = t + t + "fLi" + std::to_string(exponent) + "ELb" + (log ? "1" : "0") + "ELb0E";
    return string("_ZN12_GLOBAL__N_1") +
           (backward ? "21softmax_warp_backwardI" : "20softmax_warp_forwardI") + types +
           (backward ? "EEvPT0_PKT_PKT_iiiPKb" : "EEvPT0_PKT_iiiPKbib");
  }
  string epilogue = string(log ? "Log" : "") + "SoftMax" + (backward ? "Backward" : "Forward");
  return local(backward ? "cunn_SoftMaxBackward" : "cunn_SoftMaxForward",
               "Li4E" + t + "f" + t + "NS1_" + name(epilogue + "Epilogue") + "E",
               backward ? "PT0_PKT2_PKT2_l" : "PT2_PKT0_i");
}

string multi_tensor(int depth, const string &functor_type, const string &operation, const string &t) {
  return local("multi_tensor_apply_kernel",
               "NS1_18TensorListMetadataILi" + std::to_string(depth) + "EEENS1_" + functor_type +
                   "J" + operation + t + "E",
               "T_T0_DpT1_");
}

string foreach(const OpFacts &facts) {
  string t = facts.type.mangled, op = facts.op.substr(sizeof "_foreach_" - 1);
  auto scalar_op = [&](const string &std_op) {
    return multi_tensor(1, name("BinaryOpScalarFunctor") + "I" + t + "Li1ELi1ELi0EEE",
                        "St" + name(std_op) + "IfE", "f");
  };
  auto list_op = [&](const string &std_op) {
    return multi_tensor(2, name("BinaryOpListAlphaFunctor") + "I" + t + "Li2ELi2ELi0EEE",
                        "St" + name(std_op) + "IfE", "f");
  };
  if (op == "mul") return facts.scalar ? scalar_op("multiplies") : list_op("multiplies");
  if (op == "div") return facts.scalar ? scalar_op("divides") : list_op("divides");
  if (op == "add") return facts.scalar ? scalar_op("plus") : list_op("plus");
  if (op == "sub") return facts.scalar ? scalar_op("minus") : list_op("minus");
  if (op == "addcmul" || op == "addcdiv")
    return multi_tensor(3, name("PointwiseOpScalarFunctor") + "I" + t + "Li3ELi3ELi0EEE",
                        op == "addcmul" ? "St10multipliesIfE" : "St7dividesIfE", "f");
  if (op == "lerp")
    return multi_tensor(2, name("TernaryOpScalarFunctor") + "I" + t + "Li2ELi2ELi0EEE",
                        "NS0_11LerpFunctorIfEE", "f");
  if (op == "sqrt")
    return multi_tensor(1, name("UnaryOpFunctor") + "I" + t + "Li1ELi1ELi0EEE", "NS0_4SqrtIfEE", "");
  if (op == "norm")
    return multi_tensor(1, name("LpNormFunctor") + "I" + t + "LNS0_8NormTypeE1E" + t + "Li1ELi1ELi0EEE",
                        "", "Pf");
  if (op == "zero")
    return multi_tensor(1, name("ZeroFunctor") + "I" + t + "Li1ELi1ELi0EEE", "", "");
  if (op == "copy")
    return multi_tensor(2, name("CopyFunctor") + "I" + t + t + "Li2ELi1ELi1EEE", "", "");
  return multi_tensor(1, name(op + "_functor") + "I" + t + "EE", "", "f");
}

string gemm(const OpFacts &facts) {
  if (facts.type.low)
    return "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_"
           "segment_k_off_kernel__5x_cublas";
  return facts.numel >= 64 * 1024 ? "ampere_sgemm_128x64_tn" : "ampere_sgemm_32x128_tn";
}

string convolution(const string &direction) {
  return "sm80_xmma_" + direction +
         "_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw_tilesize128x128x16_stage4_warpsize2x2x1_g1_"
         "tensor16x8x8_kernel_cudnn";
}

// pytorch_flash::NAME<Flash_..._kernel_traits<64, 128, 128, 4, .., cutlass::bfloat16_t, ..>, ..>
string flash(bool backward) {
  const string base = "23Flash_kernel_traits", element = "N7cutlass10bfloat16_tE";
  string common = "Li64ELi128ELi128ELi4E" + element;
  if (backward)
    return "_ZN13pytorch_flash44flash_bwd_dq_dk_dv_loop_seqk_parallel_kernelI23Flash_bwd_kernel_traits"
           "ILi64ELi128ELi128ELi8ELi4ELi4ELi4ELb0ELb0E" + element + "19Flash_kernel_traitsI" +
           "Li64ELi128ELi128ELi8E" + element + "EELb0ELb1ELb0ELb0ELb1ELb1ELb0EEEvNS_16Flash_bwd_paramsE";
  return "_ZN13pytorch_flash16flash_fwd_kernelI23Flash_fwd_kernel_traitsILi64ELi128ELi128ELi4ELb0ELb0E" +
         element + "19Flash_kernel_traitsI" + common +
         "EELb0ELb1ELb0ELb0ELb1ELb1ELb0ELb0EEEvNS_16Flash_fwd_paramsE";
}

using Names = std::vector<string>;
using Maker = Names (*)(const OpFacts &);

const char *const kForeachEachTensor = "_foreach_norm";

// One line for each operator whose kernels have a name of their own.
const std::unordered_map<string, Maker> &table() {
  static const auto *made = new std::unordered_map<string, Maker>{
      // Element-wise
      {"add", [](const OpFacts &f) -> Names {
         return {elementwise(functor(f.scalar ? "CUDAFunctorOnSelf_add" : "CUDAFunctor_add",
                                     f.type.mangled),
                             f.scalar ? 2 : 3)};
       }},
      {"sub", [](const OpFacts &f) -> Names { return table().at("add")(f); }},
      {"mul", [](const OpFacts &f) -> Names { return {binary("MulFunctor", f)}; }},
      {"div", [](const OpFacts &f) -> Names { return {binary("DivFunctor", f)}; }},
      {"fill", [](const OpFacts &f) -> Names {
         return {elementwise(functor("FillFunctor", f.type.mangled), 1)};
       }},
      {"gelu", [](const OpFacts &f) -> Names {
         return {elementwise(lambda("GeluCUDAKernelImpl", f, 1), 2)};
       }},
      {"gelu_backward", [](const OpFacts &f) -> Names {
         return {elementwise(lambda("GeluBackwardCUDAKernelImpl", f, 2), 3)};
       }},
      {"relu", [](const OpFacts &f) -> Names {
         return {elementwise(lambda("launch_clamp_scalar", f, 1), 2)};
       }},
      {"threshold_backward", [](const OpFacts &f) -> Names {
         return {elementwise(lambda("threshold_kernel_cuda", f, 2), 3)};
       }},
      {"copy", [](const OpFacts &f) -> Names {
         string from = f.from.mangled, to = f.type.mangled;
         if (from == to) return {elementwise(lambda("direct_copy_kernel_cuda", f, 1), 2)};
         if (to == "N3c108BFloat16E")
           return {elementwise("ZNS0_" + name("bfloat16_copy_kernel_cuda") +
                                   "ERNS_18TensorIteratorBaseEEUl" + from + "E_",
                               2)};
         return {"_ZN2at6native27unrolled_elementwise_kernelIZZZNS0_23direct_copy_kernel_cudaERNS_"
                 "18TensorIteratorBaseEENKUlvE1_clEvENKUlvE5_clEvEUl" + to +
                 "E_St5arrayIPcLm2EELi4E23TrivialOffsetCalculatorILi1EjES8_NS0_6memory12LoadWithCastI"
                 "Li1EEENS9_13StoreWithCastILi1EEEEEviT_T0_T2_T3_T4_T5_"};
       }},
      // Reductions
      {"sum", [](const OpFacts &f) -> Names { return {sum(f.type.mangled)}; }},
      {"mean", [](const OpFacts &f) -> Names {
         string t = f.type.mangled;
         return {reduction("NS0_7MeanOpsI" + t + "ff" + t + "EE", t)};
       }},
      {"argmax", [](const OpFacts &f) -> Names {
         string t = f.type.mangled;
         return {reduction("NS0_9ArgMaxOpsI" + t + "EE", t)};
       }},
      {"_softmax", [](const OpFacts &f) -> Names { return {softmax(f, false, false)}; }},
      {"_softmax_backward_data", [](const OpFacts &f) -> Names { return {softmax(f, false, true)}; }},
      {"_log_softmax", [](const OpFacts &f) -> Names { return {softmax(f, true, false)}; }},
      {"_log_softmax_backward_data", [](const OpFacts &f) -> Names { return {softmax(f, true, true)}; }},
      {"native_layer_norm", [](const OpFacts &f) -> Names {
         return {local("vectorized_layer_norm_kernel", string(f.type.mangled) + "fLb0E",
                       "iT0_PKT_PKT_PKT_PT0_PT0_PT_")};
       }},
      {"native_layer_norm_backward", [](const OpFacts &f) -> Names {
         string t = string(f.type.mangled) + "fLb0E";
         return {local("layer_norm_grad_input_kernel_vectorized", t, "PKT_PKT_PKT0_PKT0_PKT_PT_i"),
                 local("GammaBetaBackwardCUDAKernelTemplate", string(f.type.mangled) + "fLj32ELj1ELj32ELb1ELb1ELb0E",
                       "llPKT_PKT_PKT0_PKT0_PT_PT_")};
       }},
      {"nll_loss_forward", [](const OpFacts &f) -> Names {
         return {local("nll_loss_forward_reduce_cuda_kernel_2d", string(f.type.mangled) + "fl",
                       "PT_PT_PKT_PKT1_PKT_bllll")};
       }},
      {"nll_loss_backward", [](const OpFacts &f) -> Names {
         return {local("nll_loss_backward_reduce_cuda_kernel_2d", string(f.type.mangled) + "l",
                       "PT_PKT_PKT0_PKT_PKT_bilil")};
       }},
      // Matrices
      {"mm", [](const OpFacts &f) -> Names { return {gemm(f)}; }},
      {"addmm", [](const OpFacts &f) -> Names { return {gemm(f)}; }},
      {"bmm", [](const OpFacts &f) -> Names { return {gemm(f)}; }},
      {"baddbmm", [](const OpFacts &f) -> Names { return {gemm(f)}; }},
      {"convolution_overrideable", [](const OpFacts &) -> Names { return {convolution("fprop")}; }},
      {"convolution_backward_overrideable", [](const OpFacts &) -> Names {
         return {convolution("dgrad"), convolution("wgrad")};
       }},
      {"_scaled_dot_product_flash_attention", [](const OpFacts &) -> Names { return {flash(false)}; }},
      {"_scaled_dot_product_flash_attention_backward", [](const OpFacts &) -> Names {
         return {"_ZN13pytorch_flash25flash_bwd_dot_do_o_kernelILb1E23Flash_bwd_kernel_traitsILi64ELi128"
                 "ELi128ELi8ELi4ELi4ELi4ELb0ELb0EN7cutlass10bfloat16_tE19Flash_kernel_traitsILi64ELi128E"
                 "Li128ELi8EN7cutlass10bfloat16_tEEEEEvNS_16Flash_bwd_paramsE",
                 flash(true)};
       }},
      {"_scaled_dot_product_efficient_attention", [](const OpFacts &) -> Names {
         return {"fmha_cutlassF_f32_aligned_64x64_rf_sm80"};
       }},
      {"_scaled_dot_product_efficient_attention_backward", [](const OpFacts &) -> Names {
         return {"fmha_cutlassB_f32_aligned_64x64_k64_sm80"};
       }},
      // Indexing, random numbers
      {"index_select", [](const OpFacts &) -> Names {
         return {native("vectorized_gather_kernel", "Li16El", "PcPcPT0_illllb")};
       }},
      {"embedding_dense_backward", [](const OpFacts &f) -> Names {
         return {native("embedding_backward_feature_kernel", string(f.type.mangled) + "fl",
                        "PKT1_PKT_PT_iii")};
       }},
      {"native_dropout", [](const OpFacts &f) -> Names {
         return {local("fused_dropout_kernel_vec", string(f.type.mangled) + "fjLi1ELi4Eb",
                       "PKT_PT_PT4_T1_T0_")};
       }},
      {"native_dropout_backward", [](const OpFacts &f) -> Names {
         return {elementwise(lambda("masked_scale_kernel", f, 2), 3)};
       }},
      {"cat", [](const OpFacts &) -> Names {
         return {local("CatArrayBatchedCopy_vectorized", "NS1_10OpaqueTypeILj4EEEjLi4ELi64ELi64ELi16ELi4E",
                       "PcPci")};
       }},
      {"_fused_adamw", [](const OpFacts &f) -> Names {
         string t = f.type.mangled;
         return {local("multi_tensor_apply_kernel",
                       "NS1_32FusedOptimizerTensorListMetadataILi4EEENS1_20FusedAdamMathFunctorI" + t +
                           "fLi4ELNS0_9ADAM_MODEE1ELb0EEEJPKfdddddbbPKfPKfE",
                       "T_T0_DpT1_")};
       }},
  };
  return *made;
}

// multi_tensor_apply passes at most so many tensors to one kernel.
int64_t foreach_kernels(const OpFacts &facts) {
  constexpr int64_t kTensorsPerKernel = 110;
  return std::max<int64_t>(1, (facts.list + kTensorsPerKernel - 1) / kTensorsPerKernel);
}

}  // namespace

std::vector<string> kernel_names(const OpFacts &facts) {
  auto found = table().find(facts.op);
  Names names;
  if (found != table().end())
    names = found->second(facts);
  else if (facts.op.rfind("_foreach_", 0) == 0)
    names = Names((size_t)foreach_kernels(facts), foreach(facts));
  else
    names = {native(facts.op + "_kernel", facts.type.mangled, "PT_l")};
  if (facts.op == kForeachEachTensor)
    names.push_back(local("lpnorm_cleanup", string(facts.type.mangled) + "LNS0_8NormTypeE1Ef",
                          "PKT_PPT1_i"));
  return names;
}

}  // namespace simcuda
