"""What a kernel computes, by its name: ordered rules, reviewed against real traces.

The first rule that matches decides. The order carries the meaning: names are full of words of the
layers below (every CUTLASS convolution says `gemm`, every attention `softmax`), so what is built on
something comes before it. Rules see the demangled name without its parameters, in lower case.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from gputap.profiler.cupti.cxx_text import without_parameters

_MAX_READ: Final = 2048
"""Of longer names only so much is looked at: what they do is said early, and some rules need time
that grows with the square of it."""


class Category(str, Enum):
    """What a kernel, copy or fill is for."""

    GEMM = "gemm"
    CONV = "conv"
    ATTENTION = "attention"
    NORM = "norm"
    SOFTMAX = "softmax"
    REDUCTION = "reduction"
    ELEMENTWISE = "elementwise"
    EMBEDDING = "embedding"
    OPTIMIZER = "optimizer"
    SORT_SCAN = "sort_scan"
    RANDOM = "random"
    COPY = "copy"
    LOSS = "loss"
    COMMUNICATION = "communication"
    MOE = "moe"
    QUANTIZATION = "quantization"
    ROPE_KV_CACHE = "rope_kv_cache"
    MEMORY = "memory"
    """Copies and fills by the driver, which are no kernels."""
    OTHER = "other"


class TensorCores(str, Enum):
    """Whether a kernel uses tensor (matrix) cores, by its name."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


_C = Category

RULES: Final[tuple[tuple[Category, str], ...]] = (
    # Communication first: NCCL's names hold Sum, Reduce, Copy, Gather, Scatter, Broadcast.
    (
        _C.COMMUNICATION,
        r"nccl|rccl|nvshmem|rocshmem|mscclpp?|cross_device_reduce|(one|two)_?shot|"
        r"all[-_]?reduce|all[-_]?gather(?!.*embedding)|all_?to_?all|reduce_scatter|deep_ep|"
        r"symm_?mem|"
        r"multimem|quickreduce|userbuffers|\bub::|barrier_kernel|lamport|p2p_copy|"
        r"pplx|mooncake|push_pull",
    ),
    # Inductor's kernels tell what they fuse: `triton_red_fused_..._0`. Templates before the rest.
    (_C.ATTENTION, r"^triton_(tem|\w*)_fused_.*(flex_attention|attention|sdpa)"),
    (_C.CONV, r"^triton_tem_fused_.*conv"),
    (_C.GEMM, r"^triton_(tem|mm)_"),
    (
        _C.LOSS,
        r"^triton_\w+_fused_.*(nll_loss|cross_entropy|mse_loss|binary_cross|kl_div|smooth_l1)",
    ),
    (_C.NORM, r"^triton_\w+_fused_.*(layer_norm|rms_norm|batch_norm|group_norm)"),
    # RMSNorm is decomposed into a mean of squares and a reciprocal root; a variance is a norm's.
    (_C.NORM, r"^triton_(red|per|poi)_fused_.*(mean.*rsqrt|var_mean|rsqrt.*mean)"),
    (_C.SOFTMAX, r"^triton_\w+_fused_.*softmax"),
    (_C.EMBEDDING, r"^triton_\w+_fused_.*embedding"),
    (_C.RANDOM, r"^triton_\w+_fused_.*(native_dropout|bernoulli|rand|philox)"),
    (_C.OPTIMIZER, r"^triton_for_"),
    (_C.SORT_SCAN, r"^triton_(spl|\w+_fused_.*(sort|cumsum|cumprod|topk))"),
    (
        _C.COPY,
        r"^triton_poi_fused_(_to_copy|clone|copy|cat|stack|constant_pad_nd|view|permute|t|"
        r"transpose|zeros|full|fill|slice|_unsafe_view|empty)(_(_to_copy|clone|copy|cat|view|"
        r"permute|t|transpose|slice|unsqueeze|expand|_unsafe_view|zeros|full))*_\d+$",
    ),
    (_C.REDUCTION, r"^triton_(red|per|mix)_"),
    (_C.ELEMENTWISE, r"^triton_poi_"),
    # Mixture of experts before gemm (grouped gemms), softmax (gating) and sort (token order).
    (
        _C.MOE,
        r"\bmoe|_moe|moe_|fused_moe|topk_?gating|expert|grouped_topk|router_gemm|moesum|"
        r"ep_scatter|ep_gather|deepep|permute_tokens|token_permut|moealign|routing|"
        r"sigmoid_bias|topk_?softmax|softmax_?topk|biased_grouped|topk_idx|topk_with_k2",
    ),
    # Attention that names the cache it reads, before the cache.
    (_C.ATTENTION, r"(decode|prefill)with(paged|ragged)kvcache|paged_att(entio)?n"),
    # The KV cache and rotary positions before attention (`paged_`) and embedding (`rotary_`).
    (
        _C.ROPE_KV_CACHE,
        r"rotary|\brope|_rope|rope_|reshape_and_cache|kv_?cache(?!datatype)(?!.*attention)|"
        r"concat_and_cache|"
        r"appendpagedkv|set_kv_buffer|set_mla_kv|kv_indices|copy_blocks|swap_blocks|"
        r"get_mla_metadata|"
        r"_to_token_pool|kv_buffer|write_req_to_token|gather_cache|convert_vertical_slash",
    ),
    # Optimizers before reductions and elementwise; TBE fuses Adagrad into the embedding's backward.
    (
        _C.EMBEDDING,
        r"split_embedding|embedding_(backward|forward|codegen)|dense_embedding|"
        r"jagged|permute_pooled|_tbe|tbe_|bounds_check_indices|linearize_index|"
        r"permute_(1d|2d|indices|multi)|lxu_cache|lru_cache|block_bucketize|"
        r"fbgemm_gpu::.*(offsets_range|permute|segment_sum|lengths|bucket)|"
        r"emb_kernel|generate_vbe",
    ),
    (_C.COPY, r"multi_tensor_apply_kernel<.*copyfunctor"),
    # Norms of a gradient by multi_tensor_apply are the clipping that belongs to the optimizer.
    (
        _C.OPTIMIZER,
        r"multi_tensor_apply|multi_?tensor_(adam|sgd|lamb|novograd|scale|axpby|l2norm)|(?<!h)adam|"
        r"adagrad|rmsprop|lamb_?stage|lambstage|sgd|koptimizer|amp_(unscale|update|non_finite)|"
        r"distopt|lion_|muon|zeropower",
    ),
    # Losses before softmax and gemm: cross entropy holds log_softmax.
    (
        _C.LOSS,
        r"nll_?loss|cross_?entropy|_loss_|mse_(kernel|loss)|smooth_?l1|huber|kl_?div|ctc_?loss|"
        r"binary_cross|bce_|ctc_|_loss\b|loss(forward|backward|functor)|class_nll|focal_loss",
    ),
    # Attention before gemm, softmax, reduction: fmha is made of all three. State-space models
    # and linear attention mix tokens as well.
    (
        _C.ATTENTION,
        r"flash(?!infer)|fmha|attention|attn|sdpa|"
        r"\bmha|_mha|mha_|\bmla|_mla|mla_|"
        r"batch(decode|prefill)with|single(decode|prefill)with|mergestate|merge_attn|"
        r"^_fwd_(kernel|grouped)|^_bwd_(kernel|preprocess)|_fwd_kernel_stage|^_attn|"
        r"selective_scan|chunk_(scan|state|gated|local|fwd|bwd|delta|gla)|ssd_|mamba|gated_delta|"
        r"retention|linear_attn|wkv|state_passing|kda_|_kda|gdn|delta_?net|dot_do_o|convert_dq|"
        r"dkdv|_?prefill|masked_multihead|_varlen_|"
        r"batchedgemm_softmax",
    ),
    # Fused norm + quantization is a norm first.
    (
        _C.NORM,
        r"layer_?norm|rms_?norm|batch_?norm|group_?norm|instance_?norm|rowwisemoments|gammabeta|"
        r"\bbn_(fw|bw)|bn_(fw|bw)_|cuapplylayer|cucomputegrad|cucomputepartgrad|_?ln_(fwd|bwd)|"
        r"normkernel|fused_add_rms|weight_norm|computefusedparams|groupnorm|"
        r"computeinternalgradients|qk_?norm|l2norm|local_response|lrn|_norm_(fwd|bwd)|"
        r"norm::|compute_?(invstd|stats)|welford|with_norm|(^|_)gn_",
    ),
    # Convolutions before gemm (implicit_gemm) and quantization; layout changes of cuDNN are copies.
    (_C.COPY, r"(nchw|nhwc|ncdhw|ndhwc|chwn)to(nchw|nhwc|ncdhw|ndhwc|chwn)"),
    (
        _C.CONV,
        r"conv(?!ert)|fprop|wgrad|dgrad|implicit_?gemm|im2col|col2im|vol2col|winograd|"
        r"scudnn|[hs]\d+cudnn|cudnn::cnn|cask_cudnn|fft[12]d_|flip_filter|dgrad|"
        r"_igemm_(fwd|bwd|wrw)|igemm_|"
        r"miopensp|naive_conv|depthwise|subtensorop|gcgemm|computeoffsetskernel|"
        r"cudnn::(detail::)?(winograd|dgrad|wgrad)|precomputed_",
    ),
    # Gemms whose operands are quantized are gemms: before quantization.
    (
        _C.GEMM,
        r"(?<!fb)gemm|gemv|nvjet|^cijk|xmma|splitkreduce|matmul|_mm_kernel|_mm\b|^mm_|\bbmm|"
        r"_bmm|bmm_|scaled_mm|marlin|machete|cutlass(?!.*(elementwise|copy))|tensorop|wvsplit|llmm|"
        r"ampere_[a-z0-9]*(syrk|trsm|trmm|symm|herk)|dot_kernel|reduce_1block_kernel|wgmma|"
        r"device_kernel<at::cuda::detail::cutlass|tinygemm|awq_|exllama|qmv|qgemm|"
        r"\bger_|syrk|trsm|xxt_kernel|ba_plus_caa|batched_dot|matvec|mat_vec|mul_mat|"
        r"linear_kernel|epilogue::impl",
    ),
    (
        _C.QUANTIZATION,
        r"quant|_fp8_|fp8_|fp8rowwise|hfp8|mxfp|nvfp4|int8_|cvt_fp|cast_fp8|to_fp8|fp4_|"
        r"per_token_|scale_1d_block|_amax|amax_|fake_quant|hadamard|bfloat16_quantized",
    ),
    # PyTorch's softmax and log_softmax, forward and backward.
    (_C.SOFTMAX, r"soft_?max"),
    # Lookups, gathers and scatters, before elementwise (scatter_gather_elementwise) and reduction.
    (
        _C.EMBEDDING,
        r"embedding|index_?select|indexselect|index_?add|indexfunc|"
        r"index_(put|fill|copy|elementwise|"
        r"kernel)|indexing_backward|index_get|"
        r"scatter|gather(?!topk)|compute_grad_weight|krn_partial|sum_and_scatter|take_put|"
        r"masked_select|segment_reduce|compute_grad|lookup|getkernel|unpool",
    ),
    # Choosing a token is drawing at random; before sort (top-k, top-p).
    (
        _C.RANDOM,
        r"sampling|distribution_|philox|dropout|bernoulli|multinomial|randperm|random|"
        r"curand|normal_and_transform|uniform|exponential_kernel|poisson|gumbel|generate_seed|rng",
    ),
    (
        _C.SORT_SCAN,
        r"sort|scan|top_?k|topp|bitonic|cumsum|cumprod|cummax|unique|deviceselect|"
        r"compact|partition|run_?length|histogram|searchsorted|bincount|reducebykey|reduce_by_key|"
        r"nonzero|merge_kernel|blocksort|kthvalue|median|mode_kernel|penalt|"
        r"find_long_segments|compute_num_of_partial|prefixsum|prefix_sum|onesweep",
    ),
    # Copies by kernels; before elementwise, whose templates they use.
    (
        _C.COPY,
        r"catarray|copy|memcpy|memset|(?<!pre)fill(?!ed)|transpose|permut|\bcat_|concat|"
        r"stack_kernel|\broll|_roll|flip|\bpad|_pad|pad_|padding|reflection|replication|triu|tril|"
        r"arange|linspace|eye_kernel|zero_|_zero|clone|gather_rows|split_with_sizes|chunk_cat|"
        r"shuffle|expand|repeat|strided|contiguous|pack_|unpack|slice|offsets_range|"
        r"tensortransform|convert_?layout|range_kernel|compute_cuda_kernel",
    ),
    # What falls out of windows is a reduction of them.
    (
        _C.REDUCTION,
        r"reduce|reduction|pool|norm_?two|lpnorm|argmax|argmin|meanops|sum_functor|_sum_|"
        r"sum_kernel|"
        r"trace_kernel|allclose|isfinite_all|devicereduce|segmented|dot_product|"
        r"max_kernel|min_kernel|cdist|rowwise_(max|sum)|colsum",
    ),
    (
        _C.ELEMENTWISE,
        r"elementwise|pointwise|vectorized|unrolled|cudafunctor|act_and_mul|activation|gelu|silu|"
        r"swiglu|relu|sigmoid|tanh|swish|mish|geglu|bias_?act|add_?bias|bias_?add|addbias|"
        r"bias_relu|op_tensor|optensor|scalar_|clamp|where|mask|add_kernel|"
        r"mul_kernel|fused_add|residual|upsample|interpol|grid_sampl|lerp|pow_|exp_|log_|"
        r"foreach|apply_|threshold|scal_kernel|axpy|clamp_position|resolve_future|"
        r"cast_|convert|for_each|addcmul|"
        r"transform_kernel|tensor_apply|softcap|add_mul|element_wise|"
        r"cudnn::ops|tensor_kernel|unary_kernel|binary_kernel|packedtensor",
    ),
)

_COMPILED: Final = tuple((category, re.compile(pattern)) for category, pattern in RULES)

_NEVER: Final = frozenset(Category) - {_C.GEMM, _C.CONV, _C.ATTENTION, _C.MOE, _C.OTHER}
"""What does no products of matrices."""

_SIMT: Final = re.compile(
    # Single and complex precision on ordinary cores, vectors, and what goes before or after.
    r"simt|(?<![a-z0-9])sgemm|_(sgemm|cgemm|gcgemm|scgemm)_|"
    r"^(ampere|volta|turing|maxwell|pascal|kepler)_(sgemm|cgemm|zgemm)|"
    r"f32f32_f32f32_f32_[tn]|gemv|dot_kernel|reduce_1block|splitk_?reduce|epilogue::impl|repack|"
    r"fft[12]d|computeoffsets|scudnn|winograd|im2col|col2im|depthwise|reduce_wgrad|reducesplitk|"
    r"(batch|single)decodewith(?!.*mla)|merge_attn|merge_?state|combine_kernel|ll4mi_reduce|"
    r"_reduce_kernel|preprocess|dot_do_o|convert_dq|moe_align|topk|gating|^triton_(per|red|poi)_"
)
_MATRIX: Final = re.compile(
    r"tensorop|tensor16x|tensor8x|wmma|[hi]mma|gmma|_mma|mfma|wgmma|nvjet|flash(?!infer)|fmha_v2|"
    r"fmhasm\d+|(batch|single)prefillwith|^bmm_(e2m1|e4m3|mxe|bfloat16|fp16)|"
    r"s1688|s16816|s161616|s884|h884|h1688|h16816|i8816|i16832|i16864|d884|z884|xmma|"
    r"_mi(?:16x16|32x32|4x4)|cutlass3x|sm(?:90|100|120)_|marlin|machete|deep_?gemm|fp8_gemm|"
    r"tfloat32|cutlassf_(bf16|f16)|cutlassb_(bf16|f16)|cudnn_generated"
)
"""Shapes of matrix instructions, and libraries that use nothing else."""


def category(name: str) -> Category:
    """What a kernel computes. The name may be mangled; then its words are looked at as they are."""
    text = _looked_at(name)
    for found, pattern in _COMPILED:
        if pattern.search(text):
            return found
    return Category.OTHER


def tensor_cores(name: str) -> TensorCores:
    """Whether a kernel uses tensor cores, where the name tells."""
    if category(name) in _NEVER:
        return TensorCores.NO
    text = _looked_at(name)
    if _SIMT.search(text):
        return TensorCores.NO
    return TensorCores.YES if _MATRIX.search(text) else TensorCores.UNKNOWN


def _looked_at(name: str) -> str:
    """Without parameters: they name types of other libraries."""
    text = name[:_MAX_READ]
    return (without_parameters(text) if "(" in text else text).lower()
