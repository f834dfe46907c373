"""Where the runs of a grid go: processes of this machine, a Ray cluster, or SLURM."""
