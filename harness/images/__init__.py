"""Guest images and QEMU builds: recipes, the builder's own apt state, and the content-addressed cache."""
