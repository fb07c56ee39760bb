// The kernels as a program: reads calls from the standard input and writes results to the standard output.

#include "kernels.cpp"

#include <iostream>

int main() {
  Library library;
  define_operations(library);
  try {
    for (int64_t size; std::fread(&size, sizeof(size), 1, stdin) == 1;) {
      Channel channel{stdin, stdout, {}};
      std::string name(size, 0);
      channel.read_bytes(name.data(), name.size());
      library.operations.at(name)(channel);
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
