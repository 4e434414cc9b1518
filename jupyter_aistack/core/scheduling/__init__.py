"""Who is next: the cycle, the order of the queue, fair shares, preemption,
forecasts.
"""
