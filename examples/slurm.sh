#!/bin/bash
# Trains the segmenter on four GPUs of one node: sbatch examples/slurm.sh DATASET_DIR
# A job that is stopped saves first; submitted again, it goes on where it stopped.
#SBATCH --job-name=mgcc
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
set -euo pipefail
dataset=$(realpath "$1")
cd "$SLURM_SUBMIT_DIR/bundle"
resume=false
if ls runs/segmentation/checkpoints/*.pt > /dev/null 2>&1; then resume=true; fi
exec srun torchrun --nproc_per_node 4 -m monai.bundle run training \
    --config_file "['configs/train.json','configs/multi_gpu_train.json']" \
    --dataset_dir "$dataset" --resume "$resume"
