"""The mini-VIF suite: nine tasks, planted defects and two base models, built by code from package registries."""
