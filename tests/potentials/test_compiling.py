"""Compiled kernels are kept on disk under names that change with any kernel's text."""

from hullscreen.potentials import compiling
from hullscreen.potentials.kernels import workspace


def test_names_carry_the_digest_of_all_kernels():
    stored = workspace._cache
    assert compiling._sources_digest()[:16] in stored._cache_file._index_name
    assert stored._cache_file._source_stamp == compiling._sources_digest()


def test_the_digest_follows_the_kernels(tmp_path, monkeypatch):
    (tmp_path / "a_kernels.py").write_text("from hullscreen.potentials.compiling import kernel\n")
    (tmp_path / "words.py").write_text("text = 1\n")
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compiling.py"))
    digest = compiling._sources_digest.__wrapped__
    before = digest()
    (tmp_path / "words.py").write_text("text = 2\n")
    assert digest() == before
    (tmp_path / "a_kernels.py").write_text("import compiling import kernel  # changed\n")
    assert digest() != before
