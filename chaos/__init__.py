"""`make chaos`: an organization at work while everything it runs on fails, judged from outside."""
