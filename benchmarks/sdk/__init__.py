"""What one logged step costs a training process: Pilothouse beside the trackers and Kafka clients of others."""
