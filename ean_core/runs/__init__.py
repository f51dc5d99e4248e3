"""Additions to mmengine's Runner: hooks, processes, settings, supernet, CUDA graphs; and the folder of a run."""
