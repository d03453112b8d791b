"""Configuration, installed as `atomlab.conf`."""
