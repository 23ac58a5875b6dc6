"""What tests, the demo and the benchmarks stand on: real servers, fakes of the seams, the simulation. Imported by no room."""
