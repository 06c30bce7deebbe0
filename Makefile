# Two commands do everything: `make demo` and `make test`. What they need, they install.
.PHONY: demo test lint deps
