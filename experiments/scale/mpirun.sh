#!/bin/bash
# One run on the machines of a host file, a process for each: HOSTS=hosts.txt experiments/scale/mpirun.sh
# Open MPI says to each process who it is; the others are found by the first host's name.
mpirun --hostfile "$HOSTS" --map-by ppr:1:node -x PATH \
  .venv/bin/python launch.py --distributed=auto \
  --config=configs/vqvae_idr0093.py --workdir=runs/vqvae_idr0093
