# nix flake check: the style, and the tests of each member that need no browser. The tools are the root's group dev.
{
  pkgs,
  python,
  projects,
  root,
}:
let
  inherit (pkgs) lib;
  environment = python.withPackages (
    packages:
    projects.root.renderers.withPackages {
      inherit python;
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
