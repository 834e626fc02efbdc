"""Reading a split's samples in batches with NVIDIA DALI."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.encoding import Encoding
from shards.format import NPY_HEADER_BYTES
from shards.readers import RawBatch, ReaderConfig, damaged

#: Samples that DALI's shuffle buffer holds: 16 MB of compact PNG, 130 MB of spectra.
SHUFFLE_BUFFER = 4096


class DaliReader:
    """NVIDIA DALI in pipeline mode, with `pad_last_batch` so that no epoch loses or repeats a sample."""

    def __init__(self, config: ReaderConfig) -> None:
        self._config = config
        self._pipeline = self._build(None)

    def _build(self, checkpoint: bytes | None) -> Any:
        import nvidia.dali.fn as fn
        from nvidia.dali import pipeline_def, types

        config, encoding = self._config, self._config.encoding
        gpu = config.device.startswith("cuda")
        device_id = int(config.device.partition(":")[2] or 0) if gpu else None

        @pipeline_def(enable_checkpointing=True)
        def pipeline() -> Any:
            # Typed as a list of outputs only for some ways of calling.
            outputs: Any = fn.readers.webdataset(
                paths=[str(path) for path in config.tars],
                index_paths=[str(path.with_suffix(".idx")) for path in config.tars],
                ext=[encoding.extension, "npy"],
                missing_component_behavior="error",
                random_shuffle=config.shuffle,
                initial_fill=SHUFFLE_BUFFER,
                seed=config.seed,
                shard_id=config.rank,
                num_shards=config.world_size,
                stick_to_shard=True,
                pad_last_batch=True,
                name="samples",
            )
            payload, vector = outputs
            source = fn.get_property(vector, key="source_info")
            values = fn.slice(vector, NPY_HEADER_BYTES, 8 * config.labels, axes=[0])
            return (
                fn.reinterpret(values, dtype=types.FLOAT64),
                fn.pad(source, fill_value=0),
                *_stored(payload, encoding, gpu),
            )

        built = pipeline(
            batch_size=config.batch_size, num_threads=config.threads, device_id=device_id, seed=config.seed,
            checkpoint=checkpoint,
        )  # fmt: skip
        built.build()
        return built

    def next(self) -> RawBatch:
        """One run of the pipeline; a corrupt sample is a JobError that names its shard."""
        try:
            labels, info, stored, *headers = self._pipeline.run()
        except RuntimeError as error:
            raise damaged(_cause(error, self._config.tars)) from error
        config, encoding = self._config, self._config.encoding
        sources = [_split_source(bytes(row)) for row in np.array(info.as_tensor())]
        content: Any
        if headers:
            _same_header(np.array(headers[0].as_tensor()), encoding, sources)
        if encoding.shape is None:
            payloads = np.array(stored.as_tensor())
            content = [_spectrum(encoding, *item) for item in zip(payloads, sources, strict=True)]
        else:
            shape = (config.batch_size, *encoding.shape)
            if config.device.startswith("cuda"):
                import torch

                # The pipeline reuses its buffers at the next run.
                content = torch.utils.dlpack.from_dlpack(stored.as_tensor()).clone().reshape(shape)
            else:
                content = np.array(stored.as_tensor()).reshape(shape)
        return RawBatch(content, np.array(labels.as_tensor()), sources)

    def state(self) -> dict[str, Any]:
        """DALI's own checkpoint, as base64 text."""
        return {"dali": base64.b64encode(self._pipeline.checkpoint()).decode("ascii")}

    def restore(self, state: dict[str, Any]) -> None:
        """Build the pipeline again at the checkpoint."""
        self._pipeline = self._build(base64.b64decode(state["dali"]))

    def close(self) -> None:
        """Drop the pipeline, and with it its threads and buffers."""
        self._pipeline = None


def _stored(payload: Any, encoding: Encoding, gpu: bool) -> tuple[Any, ...]:
    """The part of the pipeline that depends on the encoding: what a sample holds, and a header sliced off."""
    import nvidia.dali.fn as fn
    from nvidia.dali import types

    if encoding.shape is None:
        # A batch is one array: shorter spectra are filled up, and their own headers say where they end.
        return (fn.pad(payload, fill_value=0),)
    if encoding.header is not None:
        start, size = len(encoding.header), int(np.prod(encoding.shape))
        pixels = fn.reshape(fn.slice(payload, start, size, axes=[0]), shape=list(encoding.shape))
        return pixels.gpu() if gpu else pixels, fn.slice(payload, 0, start, axes=[0])
    # nvJPEG decodes on the GPU; PNG has no decoder there and moves as small code arrays instead.
    on_gpu = gpu and encoding.full_size
    # At 224 x 224 nvJPEG's default leaves Huffman decoding to the CPU even in "mixed".
    options: dict[str, Any] = {"hybrid_huffman_threshold": 0} if on_gpu else {}
    gray = len(encoding.shape) == 2
    pixels = fn.decoders.image(
        payload, device="mixed" if on_gpu else "cpu", output_type=types.GRAY if gray else types.RGB, **options
    )
    return (pixels.gpu() if gpu and not on_gpu else pixels,)


def _spectrum(encoding: Encoding, payload: npt.NDArray[np.uint8], source: tuple[str, str]) -> Any:
    try:
        return encoding.decode(payload)
    except ValueError as error:
        raise damaged(f"{_place(source, encoding)}: {error}") from None


def _same_header(headers: npt.NDArray[np.uint8], encoding: Encoding, sources: list[tuple[str, str]]) -> None:
    wrong = (headers != np.frombuffer(encoding.header or b"", np.uint8)).any(axis=1)
    if wrong.any():
        raise damaged(f"{_place(sources[int(wrong.argmax())], encoding)}: not the header of its picture")


def _place(source: tuple[str, str], encoding: Encoding) -> str:
    tar, member = source
    return f"{tar}: {member.partition('.')[0]}.{encoding.extension}"


def _split_source(info: bytes) -> tuple[str, str]:
    # DALI's source_info is `<tar>:<offset>:<member>`.
    tar, _, member = info.rstrip(b"\0").decode().rsplit(":", 2)
    return tar, member


def _cause(error: RuntimeError, tars: Sequence[Path]) -> str:
    """What DALI says went wrong; it seldom says in which archive."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    after = lines.index("encountered:") + 1 if "encountered:" in lines else 0
    cause = next((line for line in lines if ".tar" in line), lines[after] if after < len(lines) else "unknown")
    folders = ", ".join(sorted({str(tar.parent) for tar in tars}))
    return f"{folders}: DALI could not read a sample: {cause[:300]}"
