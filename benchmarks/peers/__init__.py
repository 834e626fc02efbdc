"""What ours is held against.

worker          other people's loaders, in a process of their own
matplotlib_reference    matplotlib's drawing of the three pictures
matplotlib_comparison   how like them ours are
published       how like the paper's own plotter's they are
"""
