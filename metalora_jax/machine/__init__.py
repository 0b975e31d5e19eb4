"""What touches the machine: files, processes, memory, caches and the terminal."""
