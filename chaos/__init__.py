"""`make chaos`: a seeded storm of faults over the real processes, with traffic meanwhile, judged from outside."""
