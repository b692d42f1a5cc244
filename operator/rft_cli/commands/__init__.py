"""The commands of ``rft``. Most have a module of their own; suspend, resume and cancel share one."""
