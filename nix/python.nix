# Python 3.12 of nixpkgs. In its package set are the packages of poetry.lock, as wheels, and the members of this
# repository, built from their pyproject.toml.
{
  pkgs,
  projects,
  lock,
}:
let
  inherit (pkgs) lib;

  member =
    final: project:
    final.buildPythonPackage (
      project.renderers.buildPythonPackage {
        inherit python;
        pythonPackages = final;
      }
    );

  python = pkgs.python312.override {
    self = python;
    packageOverrides =
      final: _:
      lib.genAttrs lock.names (lock.wheel final)
      // lib.mapAttrs (_: member final) projects.members
      # nixpkgs builds every Python package with these, so they cannot be built from the packages above.
      // {
        inherit (pkgs.python312.pkgs) packaging poetry-core setuptools;
      };
  };
in
python
