#include <cstdio>
#include <cstring>
#include <exception>

#include "self_check/cases.h"

// self_check NAME runs a case; without a name, all names are printed.
int main(int argc, char** argv) {
  using namespace vtfast::self_check;
  for (const auto& cases : {correct_cases(), planted_mistakes()}) {
    for (const Case& check : cases) {
      if (argc < 2) {
        std::puts(check.name);
      } else if (std::strcmp(argv[1], check.name) == 0) {
        try {
          check.run();
          return 0;
        } catch (const std::exception& error) {
          std::fprintf(stderr, "%s\n", error.what());
          return 1;
        }
      }
    }
  }
  return argc < 2 ? 0 : 2;
}
