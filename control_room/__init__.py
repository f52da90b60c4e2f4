"""What people see of runs beside the command line: reports (`report`), the page and its API (`web`), and the orders
that both the page and the command line send (`orders`).
"""
