-- `time_hour` floors the time of the observation (mostly at :51) to the hour: a row can be known up to an hour later.
SELECT origin, time_hour AS observed, time_hour + INTERVAL 1 HOUR AS published,
    temp, dewp, humid,
    CASE WHEN wind_speed < 200 THEN wind_speed END AS wind_speed,  -- one reading says 1,048 miles an hour
    wind_gust, precip, pressure, visib
FROM metar
