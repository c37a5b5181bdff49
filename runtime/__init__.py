"""What the processes stand on: settings, logs, embedded servers, supervision."""
