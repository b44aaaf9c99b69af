"""Convolutions, dense layers and broadcasting that the networks share."""
