"""`make chaos`: an organization at work while everything it runs on fails, by a seed, judged from outside."""
