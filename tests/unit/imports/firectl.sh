firectl reinforcement-fine-tuning-job create \
  --base-model accounts/fireworks/models/llama-v3p1-8b-instruct \
  --dataset my-dataset \
  --evaluator accounts/my-account/evaluators/math-check \
  --output-model accounts/my-account/models/math-tuned \
  --epochs 2 --learning-rate=0.00005 --lora-rank 16 --max-context-length 8192 \
  --batch-size 32768 --temperature 0.8 --top-p 0.95 --top-k 40 \
  --max-output-tokens 1024 --response-candidates-count 12 --chunk-size 200 \
  --rl-loss-method gspo-token --rl-kl-beta 0.001 --eval-auto-carveout=false \
  --wandb-project math --wandb-entity team --wandb-api-key SECRET-VALUE --yes
