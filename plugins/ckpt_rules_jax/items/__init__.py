"""The checks of weights/broken-orbax-item: each file by itself, the trees that lead to them, the arrays that they hold."""
