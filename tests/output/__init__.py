"""What is written, made durable and gone on with."""
