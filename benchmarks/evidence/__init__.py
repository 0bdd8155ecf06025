"""Does training on a selected part help? Every method, control and rival on the mini-VIF suite, over seeds."""
