# nix flake check: the style, and the tests of the packages that need no server and no browser.
# The tools are the root's group dev, as far as nixpkgs has them; a test that misses one fails and names it.
{
  pkgs,
  python,
  projects,
  root,
}:
let
  inherit (pkgs) lib;
  known = dependency: python.pkgs ? ${dependency.name};
  tools = lib.recursiveUpdate projects.root {
    dependencies.groups.dev = lib.filter known projects.root.dependencies.groups.dev;
  };
  environment = python.withPackages (
    packages:
    tools.renderers.withPackages {
      inherit python;
      project = tools;
      groups = [ "dev" ];
    } packages
    ++ map (name: packages.${name}) (lib.attrNames projects.members)
  );
  check =
    name: command:
    pkgs.runCommand "check-${name}" { nativeBuildInputs = [ environment ]; } ''
      cp -r ${root} source && chmod -R +w source && cd source
      export HOME=$TMPDIR
      ${command}
      touch $out
    '';
in
{
  style = check "style" "ruff check packages contract_tests && ruff format --check packages contract_tests";
}
// lib.mapAttrs' (
  name: folder:
  lib.nameValuePair name (check name "pytest -p no:cacheprovider --ignore-glob='*/browser' ${folder}")
) projects.folders
