"""Where bytes are: the web, the Hub, object stores, pipes, and this machine's disks."""
