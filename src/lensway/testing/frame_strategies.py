"""Generated frames of every kind, for property tests of the codec and the links."""

from __future__ import annotations

import typing

from hypothesis import strategies as st

from lensway.protocol import codec, frames

names = st.text(max_size=40)
counts = st.integers(min_value=0, max_value=2**53 - 1)
attempts = st.integers(min_value=1, max_value=2**32 - 1)
blobs = st.binary(max_size=200)
states = st.builds(frames.SourceState, source=names, state=names, cause=names)
sources = st.builds(
    frames.AssignedSource,
    source=names,
    name=names,
    bridge=names,
    config_version=counts,
    sealed_config=st.none() | blobs,
)
askers = st.builds(frames.Asker, key=names, key_name=names, environment=names, lens=names)

_BY_HINT: dict[str, st.SearchStrategy[typing.Any]] = {
    "Count": counts,
    "Attempt": attempts,
    "Name": names,
    "str": names,
    "bytes": blobs,
    "Annotated[str, msgspec.Meta(max_length=INSTANCE_CHARACTERS_MAX)]": names,
    "Notices": st.lists(names, max_size=4).map(tuple),
    "Names": st.lists(names, max_size=4).map(tuple),
    "bool": st.booleans(),
    "PublicKey": st.binary(min_size=32, max_size=32),
    "JobKind": st.sampled_from(frames.JobKind),
    "RefuseReason": st.sampled_from(frames.RefuseReason),
    "CloseReason": st.sampled_from(frames.CloseReason),
    "SourceStates": st.lists(states, max_size=3).map(tuple),
    "tuple[AssignedSource, ...]": st.lists(sources, max_size=3).map(tuple),
    "AssignedSource | None": st.none() | sources,
    "Asker | None": st.none() | askers,
    "Annotated[tuple[tuple[Count, Attempt], ...], msgspec.Meta(max_length=ATTEMPTS_OPEN_MAX)]": st.lists(
        st.tuples(counts, attempts), max_size=3
    ).map(tuple),
    "Annotated[tuple[Count, ...], msgspec.Meta(max_length=64)]": st.lists(counts, max_size=4).map(tuple),
    "Annotated[bytes, msgspec.Meta(max_length=64)]": st.binary(max_size=64),
    "Annotated[dict[Name, Name], msgspec.Meta(max_length=64)]": st.dictionaries(names, names, max_size=4),
    "Annotated[int, msgspec.Meta(ge=1, le=10000)]": st.integers(min_value=1, max_value=10_000),
}


def of_type(frame_type: type[frames.AnyFrame]) -> st.SearchStrategy[frames.AnyFrame]:
    """Frames of one type, every field generated from its annotation; a field of a new kind fails here by name."""
    if frame_type is frames.Data:
        payloads = st.binary(min_size=1, max_size=300)
        return st.builds(frames.Data, job=counts, attempt=attempts, payload=payloads, offset=counts)
    return st.builds(frame_type, **{name: _BY_HINT[hint] for name, hint in frame_type.__annotations__.items()})


any_frame: st.SearchStrategy[frames.AnyFrame] = st.one_of([of_type(frame_type) for frame_type in codec.FRAME_TYPES])
