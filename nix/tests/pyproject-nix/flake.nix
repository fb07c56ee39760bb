# Stands for pyproject.nix where it cannot be fetched: as much of its interface as nix/ uses, with the same
# names and shapes. Requirements are read by name and extras; markers and versions are not.
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

      load =
        { projectRoot }:
        let
          pyproject = lib.importTOML (projectRoot + "/pyproject.toml");
        in
        lib.fix (self: {
          inherit pyproject projectRoot;
          dependencies = {
            dependencies = map requirement (pyproject.project.dependencies or [ ]);
            extras = { };
            groups = lib.mapAttrs (_: map requirement) (pyproject.dependency-groups or { });
            build-systems = map requirement pyproject.build-system.requires;
          };
          renderers = {
            withPackages =
              {
                python,
                project ? self,
                groups ? [ ],
              }:
              packages:
              get packages (
                project.dependencies.dependencies
                ++ lib.concatMap (group: project.dependencies.groups.${group}) groups
                ++ project.dependencies.build-systems
              );
            buildPythonPackage =
              {
                python,
                pythonPackages ? python.pkgs,
                project ? self,
              }:
              {
                pname = pyproject.project.name;
                inherit (pyproject.project) version;
                src = projectRoot;
                pyproject = true;
                dependencies = get pythonPackages project.dependencies.dependencies;
                build-system = get pythonPackages project.dependencies.build-systems;
              };
          };
        });
    in
    {
      lib.project.loadPyproject = load;
    };
}
