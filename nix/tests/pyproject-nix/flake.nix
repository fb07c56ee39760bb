# Stands for pyproject.nix where it cannot be fetched: the part of its interface that nix/ uses, with the same names
# and shapes. It reads the name and the extras of a requirement, and neither its marker nor its version.
{
  inputs.nixpkgs.url = "path:../nixpkgs";

  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;

      requirement =
        text:
        let
          parts = builtins.match "([A-Za-z0-9._-]+)(\\[([a-z, -]+)])?.*" text;
        in
        {
          name = lib.replaceStrings [ "_" "." ] [ "-" "-" ] (lib.toLower (lib.elemAt parts 0));
          extras = lib.optional (lib.elemAt parts 2 != null) (lib.elemAt parts 2);
        };

      get = packages: map (dependency: packages.${dependency.name});

      renderers = {
        withPackages =
          {
            project,
            python,
            pythonPackages ? python.pkgs,
            groups ? [ ],
          }:
          _:
          get pythonPackages (
            project.dependencies.dependencies
            ++ lib.concatMap (group: project.dependencies.groups.${group}) groups
            ++ project.dependencies.build-systems
          );
        buildPythonPackage =
          {
            project,
            python,
            pythonPackages ? python.pkgs,
          }:
          {
            pname = project.pyproject.project.name;
            inherit (project.pyproject.project) version;
            src = project.projectRoot;
            pyproject = true;
            dependencies = get pythonPackages project.dependencies.dependencies;
            build-system = get pythonPackages project.dependencies.build-systems;
          };
      };

      load =
        { projectRoot }:
        let
          pyproject = lib.importTOML (projectRoot + "/pyproject.toml");
        in
        lib.fix (project: {
          inherit pyproject projectRoot;
          dependencies = {
            dependencies = map requirement (pyproject.project.dependencies or [ ]);
            extras = { };
            groups = lib.mapAttrs (_: map requirement) (pyproject.dependency-groups or { });
            build-systems = map requirement pyproject.build-system.requires;
          };
          # As in pyproject.nix, a renderer always gets the loaded project, whatever its caller passes.
          renderers = lib.mapAttrs (_: render: arguments: render (arguments // { inherit project; })) renderers;
        });
    in
    {
      lib.project.loadPyproject = load;
    };
}
