# Stands for nixpkgs where it cannot be fetched: the functions and packages that nix/ names, with the same
# names and shapes, and derivations that are evaluated and never built.
{
  outputs = _: {
    lib = import ./lib.nix;
  };
}
