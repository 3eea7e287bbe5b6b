"""torch's `state_dict` conventions: plain values to optimizer, scheduler, scaler and RNG facts."""
