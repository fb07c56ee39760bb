# Every pyproject.toml of the monorepo as pyproject.nix reads it: { root; members = { gemma-wire = …; … }; }.
# The members are the folders that the root's Poetry table names.
{
  lib,
  pyproject-nix,
  root,
}:
let
  load = folder: pyproject-nix.lib.project.loadPyproject { projectRoot = folder; };
  poetry = (lib.importTOML (root + "/pyproject.toml")).tool.poetry;
  grouped = lib.foldl' (all: group: all // group.dependencies) { } (lib.attrValues poetry.group);
  folders = lib.mapAttrs (_: member: root + "/${member.path}") (
    lib.filterAttrs (_: member: member ? path) (poetry.dependencies // grouped)
  );
in
{
  root = load root;
  members = lib.mapAttrs (_: load) folders;
}
