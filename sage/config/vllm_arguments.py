"""Arguments of `vllm.LLM` that may be set: those that change speed and memory, never a sample."""

from __future__ import annotations

from collections.abc import Iterable

VLLM_SPEED = frozenset(
    {
        "async_scheduling",
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "cudagraph_capture_sizes",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enable_sleep_mode",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "long_prefill_token_threshold",
        "max_cudagraph_capture_size",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_partial_prefills",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "max_seq_len_to_capture",
        "num_gpu_blocks_override",
        "pipeline_parallel_size",
        "swap_space",
        "tensor_parallel_size",
        "use_tqdm_on_load",
    }
)
"""Arguments of `vllm.LLM` that change speed and memory: samples stay what they are, to rounding. `dtype`,
`quantization`, `kv_cache_dtype`, `seed`, `hf_overrides` and others make another model or other draws."""


def refuse_what_changes_samples(arguments: Iterable[str]) -> None:
    """Raises ValueError, in one sentence, for the first name that is not in `VLLM_SPEED`."""
    for name in arguments:
        if name not in VLLM_SPEED:
            raise ValueError(
                f"{name!r} is no argument of vLLM that is known to change speed and memory alone, and "
                "speed.vllm never changes a result; those are max_model_len, gpu_memory_utilization, "
                "enforce_eager, tensor_parallel_size and the like (docs/reference/rollouts.md)."
            )
