"""What torch.save wrote, in each of its formats."""
