# Each output is a file in nix/. docs/nix.md says what has been checked and what has not.
{
  description = "Gemma 3n on NVIDIA Triton Inference Server behind an OpenAI-compatible API";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    pyproject-nix = {
      url = "github:pyproject-nix/pyproject.nix";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    { nixpkgs, pyproject-nix, ... }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      parts =
        system:
        import ./nix {
          inherit nixpkgs pyproject-nix system;
          root = ./.;
        };
      output = name: nixpkgs.lib.genAttrs systems (system: (parts system).${name});
    in
    {
      packages = output "packages";
      apps = output "apps";
      devShells = output "devShells";
      checks = output "checks";
      formatter = output "formatter";
    };
}
