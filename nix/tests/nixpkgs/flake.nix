# Stands for nixpkgs where it cannot be fetched: the functions and packages that nix/ uses, with the same names and
# shapes. Its derivations are evaluated and never built.
{
  outputs = _: {
    lib = import ./lib.nix;
  };
}
