#!/bin/bash
# One run on two nodes of four GPUs: sbatch experiments/scale/slurm.sh, in the folder of the repository.
#SBATCH --job-name=bie-jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1        # a process for each node; it sees all GPUs of the node
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120          # two minutes before the end, to every task: the run saves its state and ends
#SBATCH --requeue                  # and goes on from there in its next turn; so it does after a preemption
#SBATCH --open-mode=append

# The workdir and the data lie on a disk that all nodes share. Node and rank come from SLURM's own variables.
srun .venv/bin/python launch.py --distributed=auto \
  --config=configs/vqvae_idr0093.py --workdir=runs/vqvae_idr0093 \
  --config.data.data_dir="$SCRATCH/datasets" \
  --config.train.batch_size=512 --config.train.compute_dtype=bfloat16 \
  --config.train.mesh.fsdp=4       # the four GPUs of a node share the state, the nodes the batch
