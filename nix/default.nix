# All outputs for one system.
{
  nixpkgs,
  pyproject-nix,
  system,
  root,
}:
let
  pkgs = import nixpkgs {
    inherit system;
    config.allowUnfree = true; # for CUDA's compiler
  };
  inherit (pkgs) lib;

  projects = import ./projects.nix { inherit lib pyproject-nix root; };
  lock = import ./lock.nix { inherit pkgs root; };
  python = import ./python.nix { inherit pkgs projects lock; };
  packages = import ./packages.nix { inherit pkgs python projects root; };
in
{
  inherit packages;
  apps = import ./apps.nix { inherit pkgs packages; };
  devShells = import ./shells.nix { inherit pkgs; };
  checks = import ./checks.nix { inherit pkgs python projects root; };
  formatter = pkgs.nixfmt-tree;
}
