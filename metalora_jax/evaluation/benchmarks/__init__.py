"""What methods cost: seconds and bytes of a meta-step, one against another and over devices."""
