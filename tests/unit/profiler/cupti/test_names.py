"""What kernels are called, in short and in whole, and what they are taken for."""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gputap.profiler.cupti import demangle as demangling
from gputap.profiler.cupti.categories import RULES, Category, category, tensor_cores
from gputap.profiler.cupti.demangle import MAX_MANGLED, demangle
from gputap.profiler.cupti.itanium import demangled
from gputap.profiler.cupti.itanium_cursor import MAX_TEXT, Unreadable
from gputap.profiler.cupti.names import describe
from gputap.profiler.cupti.nccl_names import Collective, collective
from gputap.profiler.cupti.short_names import MAX_SHORT, short_name

NAMES = [
    line.split("\t")
    for line in Path(__file__).with_name("kernel_names.tsv").read_text().splitlines()
]
"""Class, tensor cores, name: of real jobs, and of libraries as they are known; all looked at."""

TRACES = sorted(Path(os.environ.get("GPUTAP_TEST_TRACES", "no traces")).glob("*.json.gz"))
"""Chrome traces of other jobs, where somebody has some; their names are in NAMES."""

FLASH_3 = (
    "_ZN7cutlass13device_kernelIN5flash11enable_sm90INS1_16FlashAttnFwdSm90INS1_25Collective"
    "MainloopFwdSm90ILi2EN4cute5tupleIJNS5_1CILi1EEES8_S8_EEENS6_IJNS7_ILi128EEENS7_ILi176EEES"
    "A_EEELi128EN7cutlass10bfloat16_tEfNS0_4arch4Sm90ELb1EEEEEEEEEvNT_6ParamsE"
)


@pytest.mark.parametrize(("kind", "cores", "name"), NAMES, ids=[n[2][:60] for n in NAMES])
def test_reviewed_names(kind: str, cores: str, name: str) -> None:
    found = describe(name)
    assert (found.category.value, found.tensor_cores.value) == (kind, cores)
    assert 0 < len(found.short_name) <= MAX_SHORT


def test_at_least_150_names_are_reviewed_in_every_class() -> None:
    assert len({name for _, _, name in NAMES}) >= 150
    # Copies and fills by the driver have no name that is looked at.
    assert {kind for kind, _, _ in NAMES} == {c.value for c in Category} - {"memory"}


def test_no_rule_matches_everything() -> None:
    for kind, pattern in RULES:
        assert not re.search(pattern, ""), kind
    assert category("zzz") is Category.OTHER
    assert category("") is Category.OTHER


def test_parameters_do_not_decide() -> None:
    assert category("my_kernel(ncclDevComm*, GemmParams, softmax_t)") is Category.OTHER


@pytest.mark.parametrize(
    ("name", "short"),
    [
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>,"
            " std::array<char*, 3ul>>(int, at::native::CUDAFunctor_add<float>)",
            "vectorized_elementwise_kernel<CUDAFunctor_add<float>>",
        ),
        (
            "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::"
            "native::BinaryFunctor<c10::BFloat16, c10::BFloat16, c10::BFloat16, at::native::"
            "binary_internal::MulFunctor<float> > >(at::TensorIteratorBase&, int const&)::"
            "{lambda(int)#1}>(int, int)",
            "elementwise_kernel<MulFunctor<BFloat16>>",
        ),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::AUnaryFunctor<long,"
            " long, bool, at::native::(anonymous namespace)::CompareEqFunctor<long> >,"
            " std::array<char*, 2ul> >(int)",
            "vectorized_elementwise_kernel<CompareEqFunctor<long, bool>>",
        ),
        (
            "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::"
            "func_wrapper_t<float, at::native::sum_functor<float, float, float>::operator()"
            "(at::TensorIterator&)::{lambda(float, float)#1}>, unsigned int, float, 4> >(int)",
            "reduce_kernel<sum_functor<float>>",
        ),
        (
            "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda"
            "(at::TensorIteratorBase&)::{lambda()#2}::operator()() const::{lambda()#4}::operator()"
            "() const::{lambda(long)#1}, at::detail::Array<char*, 2>, TrivialOffsetCalculator<1,"
            " unsigned int> >(int)",
            "unrolled_elementwise_kernel<direct_copy_kernel_cuda(long)>",
        ),
        (
            "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::native::"
            "(anonymous namespace)::TensorListMetadata<2>, at::native::(anonymous namespace)::"
            "BinaryOpListAlphaFunctor<float, 2, 2, 0>, std::plus<float>, float>(int)",
            "multi_tensor_apply_kernel<BinaryOpListAlphaFunctor<float, 2, 2, 0>, plus<float>,"
            " float>",
        ),
        (
            "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x64_64x6_tn_"
            "align8>(cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x64_64x6_tn_align8::Params)",
            "cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x64_64x6_tn_align8",
        ),
        (
            "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128,"
            " 128, 4, false, false, cutlass::bfloat16_t, pytorch_flash::Flash_kernel_traits<64,"
            " 128, 128, 4, cutlass::bfloat16_t> >, true>(pytorch_flash::Flash_fwd_params)",
            "flash_fwd_kernel<64, 128, 128, 4, false, false, bfloat16_t, true>",
        ),
        (
            "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_"
            "execute_segment_k_off_kernel__5x_cublas",
            "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1",
        ),
        (
            "std::enable_if<((8)>(0)), void>::type vllm::fused_add_rms_norm_kernel<c10::BFloat16,"
            " 8>(c10::BFloat16*, float, int)",
            "fused_add_rms_norm_kernel<BFloat16, 8>",
        ),
        (
            "void internal::gemvx::kernel<int, int, float, true>(int)",
            "gemvx::kernel<int, float, true>",
        ),
        (
            "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
            "ncclDevKernel_AllReduce_Sum_bf16_RING_LL",
        ),
        ("triton_poi_fused_add_0", "triton_poi_fused_add_0"),
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopA_NNT", "nvjet_tst_192x192_64x4_2x1_v_bz_coopA_NNT"),
        ("ampere_sgemm_128x64_tn", "ampere_sgemm_128x64_tn"),
        ("my_kernel(float*, int)", "my_kernel"),
        ("ns::Class<int>::run<4>(int) const", "Class::run<4>"),
        ("", ""),
    ],
)
def test_short_names(name: str, short: str) -> None:
    assert short_name(name) == short


def test_values_all_count_in_a_short_name() -> None:
    """Kernels that differ in one template value of several equal ones."""
    names = [f"void k<false, {x}, false, false>(int)" for x in ("true", "false")]
    assert [short_name(n) for n in names] == [
        "k<false, true, false, false>",
        "k<false, false, false, false>",
    ]


def test_long_names_stay_apart() -> None:
    tile = "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT256x32x64_MI16x16x1_SN_LDSB1_AFC{}_X"
    one, two = (short_name(tile.format(i)) for i in (1, 2))
    assert one.startswith("Cijk_Alik_Bljk_BBS_BH_MT256x32x64_MI16x16x1~")
    assert one != two
    one, two = (short_name("a" * 200 + end) for end in "bc")
    assert one != two
    assert len(one) == len(two) == MAX_SHORT
    many = ", ".join(f"ns::type_{i}<int, 4>" for i in range(40))
    one, two = (short_name(f"void ns::kernel_name<{many}, ns::last<{i}> >(int)") for i in (1, 2))
    assert one.startswith("kernel_name<type_0, type_1")
    assert one != two


# --------------------------------------------------------------------------------- demangling


@pytest.mark.parametrize(
    ("mangled", "whole"),
    [
        ("_Z9my_kernelPfi", "my_kernel(float*, int)"),
        ("_Z4bareIiEvv", "void bare<int>()"),
        (
            "_Z46ncclDevKernel_AllReduce_Sum_bf16_RING_LL_testt24ncclDevKernelArgsStorageILm4096EE",
            "ncclDevKernel_AllReduce_Sum_bf16_RING_LL_testt(ncclDevKernelArgsStorage<4096ul>)",
        ),
        (
            "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_15CUDAFunctor_addIfEESt5arrayIPcLm"
            "3EEEEviT0_T1_",
            "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>,"
            " std::array<char*, 3ul> >(int, at::native::CUDAFunctor_add<float>,"
            " std::array<char*, 3ul>)",
        ),
        (
            "_ZN5aiter24add_rmsnorm_quant_kernelIDF16bDF16bLi256ELb1EEEvPT0_PT_PfS4_i",
            "void aiter::add_rmsnorm_quant_kernel<std::bfloat16_t, std::bfloat16_t, 256, true>"
            "(std::bfloat16_t*, std::bfloat16_t*, float*, std::bfloat16_t*, int)",
        ),
        (
            "_ZN7sgl_hip10activation18act_and_mul_kernelI14__hip_bfloat16TnPFT_RKS3_EXadL_Z4siluIS2"
            "_ES3_S5_EEEEvPS3_PS4_i",
            "void sgl_hip::activation::act_and_mul_kernel<__hip_bfloat16, &silu<__hip_bfloat16> >"
            "(__hip_bfloat16*, __hip_bfloat16 const*, int)",
        ),
        (
            "_ZN51_GLOBAL__N__1234abcd_12_SoftMax_cu_12345678_987654320softmax_warp_forwardIfEEvPf",
            "void (anonymous namespace)::softmax_warp_forward<float>(float*)",
        ),
        (
            "_Z1fPFvifERA3_A4_fMN1a1bEFvvE",
            "f(void (*)(int, float), float (&) [3][4], void (a::b::*)())",
        ),
        ("_Z4waveIJifEEvDpPT_.kd", "void wave<int, float>(int*, float*)"),
        ("_Z1fi.constprop.0", "f(int) [clone .constprop.0]"),
    ],
)
def test_own_reader(mangled: str, whole: str) -> None:
    assert demangled(mangled) == whole


def test_names_that_the_system_refuses_are_read() -> None:
    """More than 1,024 characters, as FlashAttention 3 and CUTLASS 3 have."""
    inner = "N7cutlass4gemm9GemmShapeILi128ELi128ELi32EEE" * 40
    name = f"_ZN7cutlass13device_kernelIN5flash4wrapIJ{inner}EEEEEvNT_6ParamsE"
    assert 1024 < len(name) < MAX_MANGLED
    whole = demangle(name)
    assert whole.startswith(
        "void cutlass::device_kernel<flash::wrap<cutlass::gemm::GemmShape<128, "
    )
    assert whole.count("GemmShape") == 80  # once as the argument, once in the parameter
    assert describe(FLASH_3).short_name.startswith("FlashAttnFwdSm90<")
    assert describe(FLASH_3).category is Category.ATTENTION


@pytest.mark.parametrize("name", ["triton_poi_fused_add_0", "", "_Z", "_Zzz", "_ZN", "_Z9short"])
def test_what_is_not_mangled_stays(name: str) -> None:
    assert demangle(name) == name


def doubling(levels: int) -> str:
    """A name whose text doubles with every few characters."""
    name, last, following, template = "_Z1f1aIiE", 1, 2, ""
    for level in range(levels):
        ref = _substitution(last)
        if level == 0:
            name += f"1pI{ref}{ref}E"
            template, last, following = _substitution(following), following + 1, following + 2
        else:
            name += f"{template}I{ref}{ref}E"
            last, following = following, following + 1
    return name


def _substitution(index: int) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if index == 0:
        return "S_"
    high, low = divmod(index - 1, 36)
    return f"S{digits[high] if high else ''}{digits[low]}_"


def test_names_that_explode_stay_mangled_and_cost_little() -> None:
    small = demangle(doubling(5))
    assert small.startswith("f(a<int>, p<a<int>, a<int> >, p<p<a<int>, a<int> >")
    began = time.process_time()
    for levels in (20, 25, 30, 60, 200):
        assert demangle(doubling(levels)) == doubling(levels)
    # Not a speed test: without the bound the fourth would take until the memory is full.
    assert time.process_time() - began < 30


@pytest.mark.parametrize(
    "name",
    [
        "_Z1f" + "P" * 16000 + "i",
        "_Z1f" + "1aI" * 5000 + "i" + "E" * 5000,
        "_Z1f" + "N" * 16000,
        "_Z1fX" + "ad" * 8000,
        "_ZZ" * 5000,
        "_Z1fIJ" + "J" * 16000,
        "_Z" + "9" * 16000,
        "_Z1f" + "F" * 16000,
        "_Z1fDp" + "Dp" * 8000,
        "_Z1fIXsp" * 2000,
        "_Z" + "1a" * 20000,
    ],
    ids=lambda name: name[:12],
)
def test_deep_and_endless_names_are_survived(name: str) -> None:
    assert demangle(name) == name
    found = describe(name)
    assert len(found.short_name) <= MAX_SHORT


@pytest.mark.parametrize(
    "name",
    [
        "a<" * 8000,
        "a<" * 4000 + ">" * 4000 + "(int)",
        "Kernel<" * 2000 + "x" + ">" * 2000,
        "gpu_kernel_impl<" * 900,
        "k<" + "*" * 16000 + "x>",
        "k<" + " const" * 2700 + ">",
        "::" * 8000,
        "{lambda(" * 2000,
        "k<" + "::{lambda(" * 1600,
        "(" * 16000,
        "operator()<" * 1500,
        "cutlass" * 2300,
        "triton_a" + "_fused_" * 2300,
        "triton_red_fused_" + "mean" * 4000,
        "kvcache" * 2300,
        "Cijk_a_b_" + "A" * 16000,
        "Cijk_a_b_C" + "_MT1x1" * 2600,
        "ncclDevKernel_" + "_int8_t" * 2300,
        "ncclKernel_" * 1500,
        "multi_tensor_apply_kernel<" * 600,
        "_ZN" + "2at" * 5000,
        "_Z1fIJ" + "i" * 3000 + "EEv" + "Dp" * 5 + "T_",
        "_Z1fIJ" + "i" * 3000 + "EEv" + "DpP" * 40 + "T_",
    ],
    ids=lambda name: name[:16],
)
def test_names_made_to_cost_much_cost_little(name: str) -> None:
    began = time.process_time()
    found = describe(name)
    assert len(found.short_name) <= MAX_SHORT
    assert time.process_time() - began < 5  # unbounded it would be minutes, or a crash


@given(st.text("_ZNEISTJLXDFPKRVAdpsrtvifblm0123456789_.", max_size=120))
@settings(deadline=None, max_examples=1500)
def test_any_letters_after_the_mark_are_survived(tail: str) -> None:
    whole = demangle("_Z" + tail)
    assert len(whole) <= MAX_TEXT
    found = describe("_Z" + tail)
    assert len(found.short_name) <= MAX_SHORT


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=500)
def test_any_text_is_a_name(name: str) -> None:
    found = describe(name)
    assert found.name == name or name.startswith("_Z")
    assert len(found.short_name) <= MAX_SHORT


@given(st.sampled_from([n[2] for n in NAMES]), st.integers(0, 2000), st.characters())
@settings(deadline=None, max_examples=500)
def test_damaged_names_are_survived(name: str, at: int, letter: str) -> None:
    at %= len(name)
    describe(name[:at] + letter + name[at + 1 :])
    describe(name[:at])


def test_own_reader_agrees_with_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over every function of a library that is here, as far as the system reads them."""
    if not demangling.has_system():
        pytest.skip("no libstdc++.so.6")
    same = different = unread = 0
    for name in _functions_of_libstdcxx():
        system = demangling._by_system(name)
        if system is None:
            continue
        try:
            own = demangled(name)
        except Unreadable:
            unread += 1
            continue
        if own.replace(" >", ">") == system.replace(" >", ">"):
            same += 1
        else:
            different += 1
    total = same + different + unread
    assert total > 1000
    assert same / total > 0.95, (same, different, unread)


def _functions_of_libstdcxx() -> list[str]:
    """Mangled names of its functions, read as text from the file."""
    libraries = {
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "libstdc++.so" in line
    }
    assert ctypes.CDLL("libstdc++.so.6")
    found = re.findall(rb"\x00(_ZN[A-Za-z0-9_]{4,400})(?=\x00)", Path(libraries.pop()).read_bytes())
    return sorted({name.decode() for name in found})


def test_without_the_system_the_own_reader_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demangling, "_library", lambda: None)
    assert not demangling.has_system()
    assert demangle("_Z9my_kernelPfi") == "my_kernel(float*, int)"
    assert demangle("_Z1fIXqqqE") == "_Z1fIXqqqE"


# --------------------------------------------------------------------------------------- NCCL


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
            Collective("all_reduce", "sum", "bf16", "ring", "ll"),
        ),
        (
            "ncclDevKernel_ReduceScatter_PreMulSum_f8e4m3_NVLS_SIMPLE(int)",
            Collective("reduce_scatter", "premulsum", "f8e4m3", "nvls", "simple"),
        ),
        (
            "ncclDevKernel_AllReduce_SumPostDiv_u32_TREE_LL128",
            Collective("all_reduce", "sumpostdiv", "u32", "tree", "ll128"),
        ),
        (
            "ncclDevKernel_AllReduce_Max_f64_COLLNET_DIRECT_SIMPLE",
            Collective("all_reduce", "max", "f64", "collnet_direct", "simple"),
        ),
        (
            "ncclDevKernel_AllReduce_Sum_f16_NVLS_TREE_SIMPLE",
            Collective("all_reduce", "sum", "f16", "nvls_tree", "simple"),
        ),
        ("ncclDevKernel_AllGather_RING_LL(int)", Collective("all_gather", algo="ring", proto="ll")),
        ("ncclDevKernel_SendRecv(int)", Collective("send_recv")),
        ("ncclDevKernel_Generic_4(int)", Collective(None)),
        (
            "ncclSymkDevKernel_AllReduce_AGxLL_R_sum_bf16(int)",
            Collective("all_reduce", "sum", "bf16"),
        ),
        (
            "ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*, unsigned long, ncclWork*)",
            Collective("all_reduce", "sum", "f32", "ring", "ll"),
        ),
        (
            "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*, unsigned long, ncclWork*)",
            Collective("send_recv", algo="ring", proto="simple"),
        ),
        (
            "ncclKernel_AllReduce_TREE_LL_Sum___nv_bfloat16(int)",
            Collective("all_reduce", "sum", "bf16", "tree", "ll"),
        ),
        (
            "ncclAllReduceRingLLKernel_sum_f32(ncclColl)",
            Collective("all_reduce", "sum", "f32", "ring", "ll"),
        ),
        (
            "ncclBroadcastRingLLKernel_copy_i8(ncclColl)",
            Collective("broadcast", None, None, "ring", "ll"),
        ),
        ("ampere_sgemm_128x64_tn", None),
        ("void vllm::cross_device_reduce_1stage<float, 8>(int)", None),
    ],
)
def test_what_a_communication_kernel_does(name: str, found: Collective | None) -> None:
    assert collective(name) == found


# ------------------------------------------------------------------------------------- traces


@pytest.mark.skipif(not TRACES, reason="GPUTAP_TEST_TRACES names no folder of traces")
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name)
def test_little_of_a_real_job_is_left_unnamed(path: Path) -> None:
    spent: dict[Category, float] = {}
    for event in _kernels(path):
        found = category(demangle(event["name"]))
        spent[found] = spent.get(found, 0) + float(event["dur"])
    assert spent.get(Category.OTHER, 0) / sum(spent.values()) < 0.03


def _kernels(path: Path) -> list[Any]:
    trace = json.loads(gzip.decompress(path.read_bytes()).decode(errors="replace"), strict=False)
    return [e for e in trace["traceEvents"] if str(e.get("cat", "")).lower() == "kernel"]


def test_tensor_cores_are_told_where_the_name_tells() -> None:
    assert tensor_cores("ampere_sgemm_128x64_tn").value == "no"
    assert (
        tensor_cores("ampere_bf16_s16816gemm_bf16_128x256_ldg8_f2f_stages_64x3_tn").value == "yes"
    )
    assert tensor_cores("matmul_kernel").value == "unknown"
    assert tensor_cores("my_kernel").value == "unknown"
    assert tensor_cores("triton_poi_fused_add_0").value == "no"
