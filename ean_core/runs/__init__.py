"""What trainings add to mmengine's Runner: hooks, processes, settings, supernet, CUDA graphs; and a run's folder."""
