"""What a training script measures, as plain numbers: values, devices, distributions, times, log lines."""
