"""The `.metadata` of torch.distributed.checkpoint."""
